"""ThingsBoard's own gateway, when it is installed: the same load through the same broker, memory storage.

It has no listener for devices, so both gateways are clients of mosquitto here.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from .servers import Server

IS_INSTALLED = importlib.util.find_spec("thingsboard_gateway") is not None


class RivalGateway(Server):
    """Started is not ready: the load probes until a reading comes through."""

    def __init__(self, folder: Path, *, north: int, broker: int, cpu: int | None) -> None:
        config = folder / "config"
        config.mkdir(parents=True)
        (folder / "logs").mkdir()
        (config / "tb_gateway.json").write_text(json.dumps(_service(north)))
        (config / "mqtt.json").write_text(json.dumps(_connector(broker)))
        (config / "logs.json").write_text(json.dumps(LOGS))
        program = f"import os; os.chdir({str(folder)!r}); from thingsboard_gateway.tb_gateway import main; main()"
        environment = {"TB_GW_CONFIG_DIR": f"{config}/", "PIP_NO_INDEX": "1"}  # it installs packages when it likes
        command = [sys.executable, "-c", program]
        super().__init__(command, log=folder / "gateway.log", cpu=cpu, environment=environment)


LOGS = {
    "version": 1,
    "disable_existing_loggers": True,
    "handlers": {"console": {"class": "logging.StreamHandler", "level": "WARNING", "stream": "ext://sys.stdout"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
}


def _service(north: int) -> dict[str, object]:
    return {
        "thingsboard": {
            "host": "127.0.0.1",
            "port": north,
            "remoteShell": False,
            "remoteConfiguration": False,
            "statistics": {"enable": False, "statsSendPeriodInSeconds": 3600},
            "maxPayloadSizeBytes": 65_536,
            "minPackSendDelayMS": 50,
            "security": {"type": "accessToken", "accessToken": "T"},
            "qos": 1,
            "reportStrategy": {"type": "ON_RECEIVED"},
        },
        "storage": {"type": "memory", "read_records_count": 100, "max_records_count": 100_000},
        "grpc": {"enabled": False},
        "connectors": [{"type": "mqtt", "name": "field", "configuration": "mqtt.json"}],
    }


def _connector(broker: int) -> dict[str, object]:
    values = [("integer", "temperature"), ("boolean", "on"), ("integer", "n")]
    return {
        "broker": {
            "host": "127.0.0.1",
            "port": broker,
            "clientId": "rival",
            "version": 4,
            "maxMessageNumberPerWorker": 10,
            "maxNumberOfWorkers": 100,
            "security": {"type": "anonymous"},
        },
        "mapping": [
            {
                "topicFilter": "in/+",
                "subscriptionQos": 1,
                "converter": {
                    "type": "json",
                    "deviceInfo": {
                        "deviceNameExpressionSource": "topic",
                        "deviceNameExpression": "(?<=in/)(.*)",
                        "deviceProfileExpressionSource": "constant",
                        "deviceProfileExpression": "default",
                    },
                    "timeout": 60_000,
                    "attributes": [],
                    "timeseries": [{"type": kind, "key": key, "value": f"${{{key}}}"} for kind, key in values]
                    + [{"type": "string", "key": "ts", "value": "${ts}"}],
                },
            }
        ],
        "requestsMapping": {},
    }
