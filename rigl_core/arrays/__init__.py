"""The topology update and the array code that it needs, for any array library; compilers can trace all of it.

For readers who want to know exactly what an update does, and for authors of adapters. `topology` is Algorithm 1.
"""
