"""What schemathesis has no check for: a server that cannot now says when, and why in the way of RFC 9457."""

import schemathesis


@schemathesis.check
def unavailable_says_when(ctx, response, case):
    """503 is an answer of the contract with Retry-After and a problem alone."""
    if response.status_code != 503:
        return
    headers = {name.lower(): values[0] for name, values in response.headers.items()}
    assert headers.get("retry-after", "").isdigit(), f"503 without Retry-After: {headers}"
    assert headers.get("content-type") == "application/problem+json", f"503 that is no problem: {headers}"
    assert response.json()["status"] == 503, response.text
