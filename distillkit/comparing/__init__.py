"""Runs beside one another: on which texts they can be compared, what each makes of them, how sure the differences are."""
