"""HTTP: device API and administration REST on one port."""
