"""Holds answers against a description, with jsonschema-rs: DESCRIPTION ANSWERS, the latter as JSON, a list of objects with
method, path, status, media and text. Lines of JSON, and data of server-sent events, are judged one by one; of bytes and PEM
it is the media type that counts."""

import collections
import json
import sys

import jsonschema_rs

description, answers = (json.load(open(file)) for file in sys.argv[1:])
validators, judged, faults = {}, collections.Counter(), []


def validator(schema):
    text = json.dumps(schema, sort_keys=True)
    if text not in validators:
        whole = {**schema, "components": description["components"]}
        validators[text] = jsonschema_rs.Draft202012Validator(whole)
    return validators[text]


def parts(media, text):
    if media == "text/event-stream":
        return [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return text.splitlines() if media == "application/x-ndjson" else [text]


for answer in answers:
    path, status, media = answer["path"], answer["status"], answer["media"]
    what = f"{answer['method']} {path} {status}"
    response = description["paths"][path][answer["method"]]["responses"].get(str(status))
    if response is None:
        faults.append(f"{what}: is not described")
        continue
    if "$ref" in response:
        response = description["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    if media not in response["content"]:
        faults.append(f"{what}: {media} is not described")
        continue
    # An event has in its data what a line is.
    lines = "application/x-ndjson" if media == "text/event-stream" else media
    schema = response["content"][lines]["schema"]
    if not schema:
        faults.append(f"{what}: {lines} has no schema")
    if media in ("application/octet-stream", "application/x-pem-file"):
        judged[what] += 1
        continue
    for part in parts(media, answer["text"]):
        judged[what] += 1
        for error in validator(schema).iter_errors(json.loads(part)):
            faults.append(f"{what}: violates the schema: {error.message}: {part}")
print(dict(judged))
if faults:
    sys.exit("\n".join(faults))
