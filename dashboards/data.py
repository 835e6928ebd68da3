"""What the browser is sent that is no page: the trials of a study as they change, and files of them.

These routes stand behind the same door as all others (`dashboards.security`).
"""

import flask

from dashboards.feed import feed_of
from dashboards.source import StudySource
from hpo.errors import HpoError


def register_data(server: flask.Flask, source: StudySource) -> None:
    """Add the routes to the application."""

    @server.get("/data/<path:name>/trials")
    def trials(name: str) -> flask.Response:
        since = flask.request.args.get("since", 0, type=int)
        try:
            return flask.jsonify(feed_of(*source.changes(name, since)))
        except HpoError as error:
            return _refused(error)

    @server.get("/data/<path:name>/download.<kind>")
    def download(name: str, kind: str) -> flask.Response:
        from dashboards.downloads import encoded  # pandas takes half a second to load

        try:
            body, media_type, file_name = encoded(source.snapshot(name), kind)
        except HpoError as error:
            return flask.Response(f"{error}\n", status=404, content_type="text/plain; charset=utf-8")
        answer = flask.Response(body, content_type=media_type)
        answer.headers.set("Content-Disposition", "attachment", filename=file_name)
        return answer


def _refused(error: HpoError) -> flask.Response:
    """Return why a study cannot be had, for the page to show. No error to the browser, which would fill its
    console with them at every look: a study that is gone is an answer like any other."""
    return flask.jsonify({"message": error.message, "hint": error.hint})
