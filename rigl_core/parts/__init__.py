"""The parts that a recipe is made of. For users who compare methods, and for authors of methods.

One file for each kind of part: its protocol, the parts that exist, and their names in saved recipes.
"""
