"""Peers: the other systems of Tables 5 and 6, a file each."""
