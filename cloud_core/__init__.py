"""The cloud core: direct provisioning and the device API over MQTT, HTTP and CoAP."""
