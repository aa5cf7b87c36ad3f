"""A program that knows Redis and nothing of longshore: `interop.py ACTION URL`."""

import json
import sys

import redis


def publish(client):
    client.xadd("orders", {"body": "bare"})
    client.xadd("orders", {"colour": "red", "body": "with headers"})


def show(client, stream):
    for _, fields in client.xrange(stream):
        body = fields.pop("body")
        print(json.dumps({"body": body, "headers": fields}))


def main():
    action, url = sys.argv[1:]
    client = redis.Redis.from_url(url, decode_responses=True)
    if action == "publish":
        publish(client)
    else:
        show(client, {"read": "orders", "letters": "{orders}.billing.dlq"}[action])


main()
