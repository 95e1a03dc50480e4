"""Sans-IO MQTT: server side of 3.1, 3.1.1 and 5.0. Imports the standard library only."""
