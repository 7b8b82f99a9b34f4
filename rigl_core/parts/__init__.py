"""The parts of a recipe. For users who compare methods, and for authors of methods.

Each file holds one kind of part: its protocol, the parts that exist, and their names in saved recipes.
"""
