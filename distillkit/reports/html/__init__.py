"""report.html: one page that tells what a run came to. No script, no network, nothing but the figures of the run's files."""
