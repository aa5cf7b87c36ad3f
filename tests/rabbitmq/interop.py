"""A program that knows nothing of longshore: it publishes to a topic, reads it, and looks at what
died. Each action prints one line of JSON for each message."""

import json
import sys

import pika


def plain(value):
    """What JSON can show, with the type that the protocol gave it."""
    if isinstance(value, bytes):
        return {"bytes": value.decode()}
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return value


def show(method, properties, body):
    names = ["message_id", "type", "content_type", "delivery_mode", "expiration", "correlation_id"]
    shown = {name: getattr(properties, name) for name in names}
    line = {
        "exchange": method.exchange,
        "properties": {name: value for name, value in shown.items() if value is not None},
        "headers": plain(properties.headers or {}),
        "body": body.decode(),
    }
    print(json.dumps(line), flush=True)


def publish(channel, topic):
    channel.confirm_delivery()
    channel.basic_publish(topic, "", b"bare")
    headers = {"colour": "red", "count": 7, "urgent": True, "nested": {"a": 1}}
    properties = pika.BasicProperties(
        headers=headers, message_id="py-1", correlation_id="c-1", delivery_mode=2
    )
    channel.basic_publish(topic, "", b"with headers", properties)
    print(json.dumps({"confirmed": 2}), flush=True)


def bind(channel, topic):
    """A queue of its own, beside the groups of longshore."""
    queue = topic + ".python"
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(queue, topic)


def take(channel, queue, settle):
    for message in channel.consume(queue, inactivity_timeout=10):
        assert message[0] is not None, f"nothing came from {queue}"
        show(*message)
        settle(message[0].delivery_tag)
        break
    channel.cancel()


def read(channel, topic):
    take(channel, topic + ".python", channel.basic_ack)


def letters(channel, topic):
    """It is looked at, and goes back."""
    take(channel, topic + ".billing.dlq", lambda tag: channel.basic_nack(tag, requeue=True))


def main(action, url, topic):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    actions = {"publish": publish, "bind": bind, "read": read, "letters": letters}
    actions[action](connection.channel(), topic)
    connection.close()


main(*sys.argv[1:])
