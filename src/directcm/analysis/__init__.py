"""Tables, figures and the provenance page: they read metrics, curves and manifests, never a model."""
