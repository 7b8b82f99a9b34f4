"""The costs of a sparse training in operations, bytes and weights. For users who compare costs."""
