"""The other systems of Table 5, a compact file each: for their speed, side by side with ours on one machine."""
