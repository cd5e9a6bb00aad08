"""Log-probabilities that other tools have stored, read as a teacher."""
