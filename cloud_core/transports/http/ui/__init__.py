"""The web UI: pages for operators, rendered here; they ask `AdminApi` as REST does."""
