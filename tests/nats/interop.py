"""A program that knows nothing of longshore: it publishes to the topic `orders`, reads it, and looks
at what died. Each action prints one line of JSON for each message."""

import asyncio
import json
import sys

import nats


def show(message):
    print(json.dumps({"headers": message.headers or {}, "body": message.data.decode()}), flush=True)


async def publish(stream):
    await stream.publish("orders", b"bare")
    await stream.publish("orders", b"with headers", headers={"colour": "red", "Nats-Msg-Id": "py-1"})
    again = await stream.publish("orders", b"again", headers={"Nats-Msg-Id": "py-1"})
    print(json.dumps({"duplicate": bool(again.duplicate)}), flush=True)


async def read(stream):
    messages = await stream.pull_subscribe("orders", "python", stream="orders")
    for message in await messages.fetch(1, timeout=10):
        show(message)
        await message.ack()


async def letters(stream):
    messages = await stream.pull_subscribe(
        "orders.billing.dlq", "python", stream="orders=billing=dlq"
    )
    for message in await messages.fetch(1, timeout=10):
        show(message)
        await message.nak()


async def main(action, url):
    connection = await nats.connect(url)
    await {"publish": publish, "read": read, "letters": letters}[action](connection.jetstream())
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
