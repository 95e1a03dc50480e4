"""From a payload to readings and back, as the configuration declares it; pure, compiled once at load."""
