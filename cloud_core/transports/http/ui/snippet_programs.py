"""Programs for devices, shown to be copied; `@name@` stands for a value."""

from __future__ import annotations

HTTP_PROGRAM = """
import json
import ssl
import time
import urllib.error
import urllib.request

CORE = "@core@"
REQUEST = @request@
TRUST = @context@
ASK_AGAIN = ("APPROVAL_PENDING", "RATE_LIMITED", "UNAVAILABLE")


def post(path, body):
    request = urllib.request.Request(CORE + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20, context=TRUST) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as refusal:
        try:
            return json.loads(refusal.read())
        except ValueError:
            return {"reason": "UNAVAILABLE" if refusal.code in (429, 503) else f"HTTP {refusal.code}"}
    except OSError as fault:  # no answer: the same request once more
        return {"reason": "UNAVAILABLE", "retryAfter": 5, "fault": str(fault)}


while True:
    answer = post("/api/v1/provision", REQUEST)
    print(answer)
    if answer.get("status") == "SUCCESS":
        break
    if answer.get("reason") not in ASK_AGAIN:
        raise SystemExit("Refused: look the ref up in the core, under Provisioning.")
    time.sleep(answer.get("retryAfter", 60))

token = answer["credentialsValue"]  # keep it: from now on the device logs in with it
refusal = post(f"/api/v1/{token}/telemetry", {"temperature": 21.5})
print(refusal or "sent")
"""

MQTT_PROGRAM = """
import json
import queue

import paho.mqtt.client as mqtt

HOST, PORT = @host@, @port@
CA_FILE = @ca_file@
REQUEST = @request@


def connect(user_name):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.username_pw_set(user_name)
    if CA_FILE:
        client.tls_set(CA_FILE)
    return client


answers = queue.Queue()
client = connect("provision")
client.on_connect = lambda client, *_: client.subscribe("/provision/response", 1)
client.on_subscribe = lambda client, *_: client.publish("/provision/request", json.dumps(REQUEST), 1)
client.on_message = lambda client, data, message: answers.put(json.loads(message.payload))
client.connect(HOST, PORT)
client.loop_start()
answer = answers.get(timeout=20)
client.disconnect()
client.loop_stop()
print(answer)
if answer["status"] != "SUCCESS":
    raise SystemExit("Refused: look the ref up in the core, under Provisioning.")

client = connect(answer["credentialsValue"])  # keep it: from now on the device logs in with it
client.connect(HOST, PORT)
client.loop_start()
client.publish(@topic@, json.dumps({"temperature": 21.5}), 1).wait_for_publish(20)
client.disconnect()
client.loop_stop()
print("sent")
"""

MQTT_CERTIFICATE_PROGRAM = """
import json

import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.tls_set(@ca_file@, certfile="device.pem", keyfile="device.key")
client.connect(@host@, @port@)
client.loop_start()
message = client.publish(@topic@, json.dumps({"temperature": 21.5}), 1)
message.wait_for_publish(20)
client.disconnect()
client.loop_stop()
print("sent" if message.is_published() else "not sent: see Provisioning in the core")
"""
