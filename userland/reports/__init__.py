"""What a tuning run has come to, for people: as text, as pictures and as a page."""
