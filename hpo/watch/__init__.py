"""What people and monitoring see of a study: its log, structured records, figures for Prometheus."""
