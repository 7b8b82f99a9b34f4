"""What a sparse training costs in operations, bytes and weights. For users who compare costs."""
