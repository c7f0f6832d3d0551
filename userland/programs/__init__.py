"""Programs that come with the system; they have no authority of their own."""
