"""compare.html: runs beside one another, from what `distillkit compare --json` prints and nothing else."""
