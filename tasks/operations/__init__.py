"""Nights, housekeeping and what lies on the Prefect server: for whoever keeps the pipeline going."""
