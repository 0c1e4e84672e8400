// The drawn edges as images: all that are shown, and how it looked after each eighth of them.
//
// A software renderer needs seconds for fifty thousand edges. Since they come heaviest first, another threshold is
// another number of them: from the nearest image below it only the rest is drawn, and hovering draws none again.

const VERTEX = /* glsl */ `
attribute vec2 a_corner;
varying vec2 v_at;
void main() {
  v_at = 0.5 * a_corner + 0.5;
  gl_Position = vec4(a_corner, 0.0, 1.0);
}`;

const FRAGMENT = /* glsl */ `
precision mediump float;
uniform sampler2D u_image;
uniform float u_alpha;
varying vec2 v_at;
void main() {
  gl_FragColor = u_alpha * texture2D(u_image, v_at);
}`;

const LAYERS = 8;
const FEW = 4000; // edges that are drawn afresh faster than images are copied

export class Strata {
  constructor(gl) {
    this.gl = gl;
    this.key = null;
    this.width = this.height = 0;
    this.drawn = 0; // edges in the image
    this.saved = 0; // images[1..saved] hold the first 1..saved parts; images[0] is what is shown
    this.images = [];
    this.buffer = gl.createFramebuffer();
    this.corners = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.corners);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
    this.program = this.link();
  }

  link() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, FRAGMENT],
    ]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    return program;
  }

  /** Forget the images where they would show something else: another size, or another `key`. */
  prepare(width, height, key) {
    if (width !== this.width || height !== this.height) {
      this.images.forEach((image) => this.gl.deleteTexture(image));
      this.images = [];
      Object.assign(this, { width, height, key: null });
    }
    if (key === this.key) return;
    this.key = key;
    this.saved = 0;
    this.restore(0, 0);
  }

  /** Bring the image to the first `wanted` of `total` edges; `draw(from, to)` draws some into `this.buffer`. */
  reach(wanted, total, draw) {
    const step = total > FEW ? Math.ceil(total / LAYERS) : Infinity;
    const below = Math.min(Math.floor(wanted / step), this.saved);
    if (wanted < this.drawn || below * step > this.drawn) this.restore(below, below && below * step);
    while (this.drawn < wanted) {
      const part = Math.floor(this.drawn / step) + 1;
      const stop = Math.min(wanted, part * step);
      draw(this.drawn, stop);
      this.drawn = stop;
      if (stop === part * step && part > this.saved) this.save(part);
    }
  }

  /** Put the image on the screen. */
  show(alpha) {
    const { gl } = this;
    gl.enable(gl.BLEND);
    this.paint(this.image(0), null, alpha);
  }

  image(k) {
    const { gl, width, height } = this;
    if (this.images[k]) {
      gl.bindTexture(gl.TEXTURE_2D, this.images[k]);
      return this.images[k];
    }
    this.images[k] = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.images[k]);
    for (const name of ["TEXTURE_MIN_FILTER", "TEXTURE_MAG_FILTER"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.NEAREST);
    for (const name of ["TEXTURE_WRAP_S", "TEXTURE_WRAP_T"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.CLAMP_TO_EDGE);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    return this.images[k];
  }

  bind() {
    const { gl } = this;
    const target = this.image(0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.buffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target, 0);
  }

  save(part) {
    const { gl, width, height } = this;
    this.bind();
    this.image(part);
    gl.copyTexSubImage2D(gl.TEXTURE_2D, 0, 0, 0, 0, 0, width, height);
    this.saved = part;
  }

  restore(part, drawn) {
    const { gl } = this;
    this.bind();
    if (part) {
      gl.disable(gl.BLEND);
      this.paint(this.image(part), this.buffer, 1);
    } else {
      gl.clear(gl.COLOR_BUFFER_BIT);
    }
    this.drawn = drawn;
  }

  paint(image, target, alpha) {
    const { gl, program } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target);
    gl.viewport(0, 0, this.width, this.height);
    gl.useProgram(program);
    gl.bindTexture(gl.TEXTURE_2D, image);
    gl.uniform1f(gl.getUniformLocation(program, "u_alpha"), alpha);
    const at = gl.getAttribLocation(program, "a_corner");
    gl.bindBuffer(gl.ARRAY_BUFFER, this.corners);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, 2, gl.FLOAT, false, 0, 0);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.disableVertexAttribArray(at);
    gl.bindTexture(gl.TEXTURE_2D, null);
  }
}
