"""All the SQL there is: what both sides were when last in sync, and what is still to be looked at."""
