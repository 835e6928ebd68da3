"""The dashboard and the report. They read the study store and nothing else."""
