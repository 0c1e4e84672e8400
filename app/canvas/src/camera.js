// One camera for all panes: what one shows, the others follow.

export class SharedCamera {
  constructor(canvas) {
    this.canvas = canvas;
    this.leader = null;
  }

  get camera() {
    return this.canvas.panes[0].sigma.getCamera();
  }

  /** A pane's camera has moved: take the others along, keep the state for a remount. */
  moved(side, state) {
    const { canvas } = this;
    if (this.leader !== null && this.leader !== side) return;
    this.leader = side;
    canvas.panes.forEach((pane, other) => other !== side && pane.sigma && pane.sigma.getCamera().setState(state));
    this.leader = null;
    canvas.memory.camera = state;
    this.tell(state);
    canvas.overlay.moveTip();
  }

  tell(state = this.camera.getState()) {
    this.canvas.root.dataset.camera = [state.x, state.y, state.ratio].map((v) => v.toFixed(4)).join(",");
  }

  zoom(factor) {
    const { camera } = this;
    camera.animate({ ratio: camera.getBoundedRatio(camera.getState().ratio * factor) }, { duration: 120 });
  }

  fit() {
    this.camera.animate({ x: 0.5, y: 0.5, ratio: 1, angle: 0 }, { duration: 180 });
  }

  pan(dx, dy) {
    const state = this.camera.getState();
    this.camera.animate({ x: state.x + 0.12 * dx * state.ratio, y: state.y - 0.12 * dy * state.ratio }, { duration: 90 });
  }
}
