"""Pages of the report, model cards and published documents."""
