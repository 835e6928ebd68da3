"""Load dense models and text; the reference model that needs no download."""
