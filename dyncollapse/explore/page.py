"""The page of `dyncollapse explore`: widgets and layout. `marimo edit` opens a copy of it, `marimo run` serves one."""

import marimo

app = marimo.App(width="full", app_title="dyncollapse explore", css_file="page.css")


@app.cell
def _():
    from dataclasses import replace

    import marimo as mo

    from dyncollapse.explore import controls, curves, running, texts
    from dyncollapse.simulation.presets import resolve

    def slider(name, value, control=None, label=""):
        """A slider for a setting, at a value that it offers."""
        control = control or controls.CONTROLS[name]
        return mo.ui.slider(
            steps=list(control.values), value=value, label=label or control.label, show_value=True, full_width=True
        )

    def group(widgets):
        """Widgets side by side, as many as there is room for."""
        return mo.Html(
            '<div class="controls">' + "".join(f"<div>{mo.as_html(one)}</div>" for one in widgets) + "</div>"
        )

    mo.md("# Which dimensions collapse?")
    return controls, curves, group, mo, replace, resolve, running, slider, texts


@app.cell
def _(controls, group, mo, slider):
    strength = slider("aug_strength", controls.START["aug_strength"])
    decay = slider("weight_decay", controls.START["weight_decay"])
    depth = slider("depth", controls.START["depth"])
    loss, views, init = (
        mo.ui.dropdown(controls.CHOICES[name], value=controls.START[name], label=label, full_width=True)
        for name, label in (("loss", "loss"), ("views", "views"), ("init", "start"))
    )
    group([strength, depth, views, loss, init, decay])
    return decay, depth, init, loss, strength, views


@app.cell
def _(controls, depth, group, init, loss, mo, resolve, slider, views):
    # Widgets that only some choices have, each at the value that follows from these.
    standard = resolve({"loss": loss.value, "init": init.value})
    needed = controls.needed(loss.value, views.value, depth.value, init.value)
    extras = mo.ui.dictionary(
        {
            "init_scale": slider("init_scale", standard.init_scale),
            **{
                name: slider(name, 0.0 if name == "view_corr" else getattr(standard, name))
                for name in needed
                if name != "hidden_dim"
            },
        }
    )
    group(extras.elements.values())
    return (extras,)


@app.cell
def _(controls, mo, slider):
    dim = slider("dim", controls.START["dim"])
    lr, steps = slider("lr", controls.START["lr"]), slider("steps", controls.START["steps"])
    training = mo.ui.dictionary(
        {name: slider(name, controls.START[name]) for name in ("batch_size", "runs", "seed", "data_var")}
    )
    return dim, lr, steps, training


@app.cell
def _(controls, depth, dim, group, lr, mo, slider, steps, training):
    widest = controls.width_control("", dim.value)
    words = {"out_dim": "outputs", **({"hidden_dim": "width of hidden layers"} if depth.value > 1 else {})}
    sizes = mo.ui.dictionary(
        {
            "aug_dim": slider("", max(1, dim.value // 2), widest, "augmented inputs"),
            **{name: slider("", dim.value, widest, label) for name, label in words.items()},
        }
    )
    mo.accordion(
        {
            "Sizes": group([dim, *sizes.elements.values()]),
            "Training, data and time": group([lr, steps, *training.elements.values()]),
        },
        multiple=True,
    )
    return (sizes,)


@app.cell
def _(controls, decay, depth, dim, extras, init, loss, lr, mo, sizes, steps, strength, texts, training, views):
    problem = None
    try:
        configuration = controls.configuration_of(
            {
                **{"aug_strength": strength.value, "depth": depth.value, "views": views.value, "loss": loss.value},
                **{"init": init.value, "weight_decay": decay.value, "dim": dim.value},
                **{"lr": lr.value, "steps": steps.value, **sizes.value, **extras.value, **training.value},
            }
        )
    except ValueError as error:
        problem = str(error)
    mo.stop(problem is not None, mo.Html(texts.listed([f"{problem}."], "problem")))
    return (configuration,)


@app.cell
def _(configuration, curves):
    view = curves.view_of(configuration)
    return (view,)


@app.cell
def _(mo, running):
    # What runs in threads, and what they found.
    get_flow, set_flow = mo.state((None, None))
    get_sgd, set_sgd = mo.state((None, None))

    def background(work):
        """Run `work(stopped, show)` beside the page; `show` replaces the output of the cell."""

        def target():
            thread = mo.current_thread()
            try:
                work(lambda: thread.should_exit, lambda html: mo.output.replace(mo.Html(html)))
            except running.Stopped:
                pass
            except Exception as error:
                if running.ENDED.is_set():  # and the page, which the thread writes to, is gone
                    return
                if not isinstance(error, RuntimeError):  # SGD diverged, or the solver gave up
                    raise
                mo.output.replace(mo.md(f"{error}."))

        mo.Thread(target=target, daemon=True).start()

    return background, get_flow, get_sgd, set_flow, set_sgd


@app.cell
def _(curves, group, lr, mo, steps):
    moments = curves.moments(lr.value, steps.value)
    chosen = mo.ui.slider(
        steps=moments, value=moments[-1], label="flow time t of spectrum and table", show_value=True, full_width=True
    )
    sgd_button = mo.ui.run_button(label="Run SGD")
    group([chosen, sgd_button])
    return chosen, sgd_button


@app.cell
def _(background, configuration, running, set_flow):
    def _at_once(stopped, _show):
        try:
            found = running.record(configuration, configuration.dynamics[0], stopped=stopped, within=running.AT_ONCE)
        except running.TooLong as long:
            found = long
        if not stopped():
            set_flow((configuration, found))

    background(_at_once)
    return


@app.cell
def _(configuration, get_flow, mo, running):
    _of, _found = get_flow()
    flow_button = mo.ui.run_button(label="Integrate the flow")
    mo.stop(_of != configuration or not isinstance(_found, running.TooLong))
    mo.hstack(
        [mo.Html(f'<span id="long">The flow of this setting takes {_found}.</span>'), flow_button], justify="start"
    )
    return (flow_button,)


@app.cell
def _(background, configuration, flow_button, mo, running, set_flow, texts):
    mo.stop(not flow_button.value)

    def _on_request(stopped, show):
        _name = configuration.dynamics[0]
        _record = running.record(
            configuration, _name, stopped=stopped, report=lambda share: show(texts.progress("flow", share))
        )
        if not stopped():
            mo.output.replace(None)
            set_flow((configuration, _record))

    background(_on_request)
    return


@app.cell
def _(background, configuration, mo, running, set_sgd, sgd_button, texts):
    mo.stop(not sgd_button.value)

    def _train(stopped, show):
        _record = running.record(
            configuration, "sgd", stopped=stopped, report=lambda share: show(texts.progress("SGD", share))
        )
        if not stopped():
            mo.output.replace(None)
            set_sgd((configuration, _record))

    background(_train)
    return


@app.cell
def _(configuration, get_flow, get_sgd, replace, running, view):
    _records = {}
    for _name, (_of, _found) in ((configuration.dynamics[0], get_flow()), ("sgd", get_sgd())):
        if _of == configuration and not isinstance(_found, running.TooLong):
            _records[_name] = _found
    shown = replace(view, trajectories=_records)
    return (shown,)


@app.cell
def _(chosen, mo, shown, texts):
    from dyncollapse.explore import pictures

    mo.Html(
        texts.listed(texts.summary(shown), "summary")
        + texts.side_by_side(
            [
                pictures.image(
                    lambda ax: pictures.draw_paths(ax, shown, chosen.value), "Singular values over flow time"
                ),
                pictures.image(lambda ax: pictures.draw_spectrum(ax, shown, chosen.value), "Singular values by rank"),
            ]
        )
    )
    return (pictures,)


@app.cell
def _(chosen, controls, curves, mo, pictures, shown, strength, texts, view):
    phases = curves.phases(view)
    _command = controls.command(view.configuration, with_sgd="sgd" in shown.trajectories)
    _parts = [
        '<p class="section">The command that computes this</p>'
        f'<div class="codehilite"><pre><code id="command">{_command}</code></pre></div>'
        '<p class="section">What the closed forms leave out</p>' + texts.listed(texts.caveats(shown), "caveats")
    ]
    if phases is not None:
        _parts.insert(
            0,
            pictures.image(
                lambda ax: pictures.draw_phases(ax, phases, strength.value, chosen.value),
                "Size of an augmented mode over augmentation variance and flow time",
                right=0.92,
            ),
        )
    mo.Html(texts.side_by_side(_parts))
    return


@app.cell
def _(chosen, mo, shown, texts):
    mo.Html(f'<p class="section">Every mode at t = {chosen.value:g}</p>' + texts.table(shown, chosen.value))
    return


if __name__ == "__main__":
    app.run()
