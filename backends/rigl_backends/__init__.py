"""RigL for each framework: rigl_backends.numpy, rigl_backends.torch. Import the one you train with."""
