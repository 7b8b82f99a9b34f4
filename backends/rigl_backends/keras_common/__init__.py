"""What the adapters for Keras share, whatever Keras computes with: layers, names, the form of the optimizer.

`rigl_backends.tf` and `rigl_backends.keras` import it. It imports Keras and the core, and no framework.
"""
