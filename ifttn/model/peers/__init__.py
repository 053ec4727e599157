"""The peers: the other systems of Tables 5 and 6, one per file."""
