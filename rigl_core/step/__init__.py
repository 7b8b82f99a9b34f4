"""One step of a sparse training, whatever the framework: for authors of adapters, who import `rigl_core.adapter`."""
