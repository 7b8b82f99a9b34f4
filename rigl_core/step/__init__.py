"""One step of a sparse training, for any framework. For authors of adapters, who import `rigl_core.adapter`."""
