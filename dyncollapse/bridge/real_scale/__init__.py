"""The real-scale check: measure every path of the bridge and of the toy engine at full size on one device."""
