"""RigL for each framework: rigl_backends.numpy, .torch, .jax and .tf. Import the one that you train with."""
