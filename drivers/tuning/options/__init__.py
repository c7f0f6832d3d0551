"""Options of a recipe that are maps: each is one frozen object, checked where it stands."""
