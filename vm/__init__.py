"""Everything about virtual machines: inventory, lifecycle, creation, deletion, configuration and consoles."""
