"""Every picture of the package that is a chart, in one look."""
