"""Reports of a run, made from its files alone: what is read of them, and where report.html is written."""
