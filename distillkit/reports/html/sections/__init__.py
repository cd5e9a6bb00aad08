"""The sections of the page, one module for each; a section tells what is there and what is missing."""
