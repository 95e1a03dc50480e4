"""MQTT: TCP bytes to device operations, through the sans-IO `shared.mqtt`."""
