"""What goes over the wire: the JSON that Crush's client speaks, and ours beside it. Structs, no behaviour."""
