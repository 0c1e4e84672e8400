// Two WebGL programs for sigma. Threshold and dimming are uniforms and counts, so that moving the slider or hovering a
// node touches no per-edge data: edges come heaviest first, and those above a threshold are a prefix.
//
// Neither is instanced: a software renderer makes a draw of its own of every instance (50 000 edges: seconds a frame),
// and on a graphics card the few more bytes do not matter. Buffers go to the card when they change, not in every frame.
import { EdgeProgram, NodeProgram } from "sigma/rendering";
import { floatColor } from "sigma/utils";
import { Strata } from "./strata.js";

const BIAS = "const float bias = 255.0 / 254.0;";

const EDGE_VERTEX = /* glsl */ `
attribute vec2 a_position;
attribute vec2 a_normal;
attribute vec4 a_color;
attribute float a_side;
uniform mat3 u_matrix;
uniform float u_correctionRatio;
varying vec4 v_color;
varying float v_across;
varying float v_soft;
${BIAS}
void main() {
  float wanted = length(a_normal);
  v_soft = max(wanted, 0.6);
  // Half a pixel more on either side: that is where the cover has faded to nothing.
  float pixels = v_soft + 0.5;
  vec2 unit = wanted > 0.0 ? a_normal / wanted : vec2(0.0);
  // sigma's correction ratio is half a screen pixel in graph units under the present camera.
  float thickness = pixels * u_correctionRatio * 2.0;
  gl_Position = vec4((u_matrix * vec3(a_position + unit * a_side * thickness, 1.0)).xy, 0.0, 1.0);
  v_across = a_side * pixels;
  v_color = a_color;
  v_color.a *= bias;
}`;

const EDGE_FRAGMENT = /* glsl */ `
precision mediump float;
varying vec4 v_color;
varying float v_across;
varying float v_soft;
void main() {
  float cover = clamp(v_soft + 0.5 - abs(v_across), 0.0, 1.0);
  gl_FragColor = v_color * v_color.a * cover;
  gl_FragColor.a = v_color.a * cover;
}`;

const NODE_VERTEX = /* glsl */ `
attribute vec4 a_id;
attribute vec4 a_color;
attribute vec2 a_position;
attribute float a_size;
attribute float a_best;
attribute vec2 a_corner;
uniform mat3 u_matrix;
uniform float u_sizeRatio;
uniform float u_correctionRatio;
uniform float u_threshold;
uniform float u_alpha;
varying vec4 v_color;
varying vec2 v_offset;
varying float v_radius;
varying float v_border;
${BIAS}
void main() {
  float size = a_size * u_correctionRatio / u_sizeRatio * 4.0;
  vec2 offset = size * a_corner;
  gl_Position = vec4((u_matrix * vec3(a_position + offset, 1.0)).xy, 0.0, 1.0);
  v_offset = offset;
  v_radius = size / 2.0;
  v_border = u_correctionRatio / u_sizeRatio;
  #ifdef PICKING_MODE
  v_color = a_id;
  v_color.a *= bias;
  #else
  v_color = a_color;
  v_color.a *= bias * u_alpha * (a_best < u_threshold ? 0.28 : 1.0);
  #endif
}`;

const NODE_FRAGMENT = /* glsl */ `
precision highp float;
varying vec4 v_color;
varying vec2 v_offset;
varying float v_radius;
varying float v_border;
uniform float u_rim;
uniform vec3 u_background;
void main() {
  float away = length(v_offset);
  #ifdef PICKING_MODE
  if (away > v_radius) discard;
  gl_FragColor = v_color;
  #else
  float soft = v_border * u_rim;
  float cover = 1.0 - smoothstep(v_radius - soft, v_radius, away);
  // A rim parts discs that touch; on the smallest it would leave nothing of the disc.
  float rim = smoothstep(v_radius - 2.0 * soft, v_radius - soft, away) * smoothstep(3.0 * soft, 5.0 * soft, v_radius);
  vec3 shade = mix(v_color.rgb, u_background, rim * 0.9);
  float alpha = v_color.a * cover;
  gl_FragColor = vec4(shade * alpha, alpha);
  #endif
}`;

/** A program whose data go to the card only after they have changed; `kept` notes which of its buffers are as they are. */
function uploading(Base, look) {
  return class extends Base {
    kept = new Set();

    reallocate(capacity) {
      super.reallocate(capacity);
      this.kept.clear();
    }

    bindProgram(info) {
      const { gl, buffer } = info;
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      this.ATTRIBUTES.reduce((offset, attribute) => offset + this.bindAttribute(attribute, info, offset), 0);
      if (!this.kept.has(info)) gl.bufferData(gl.ARRAY_BUFFER, this.array, gl.STATIC_DRAW);
      this.kept.add(info);
    }

    render(params) {
      if (!look.held) super.render(params);
    }
  };
}

const { FLOAT, UNSIGNED_BYTE, TRIANGLES } = WebGLRenderingContext;
const color = (name) => ({ name, size: 4, type: UNSIGNED_BYTE, normalized: true });

/**
 * Edges as soft quads whose width follows weight on the screen. They are read from the pane's model, heaviest first:
 * as edges of sigma's own graph they would cost an object and several table entries each.
 */
export function edgeProgram(pane) {
  const { look } = pane;
  return class WeightedEdgeProgram extends uploading(EdgeProgram, look) {
    getDefinition() {
      return {
        VERTICES: 4,
        VERTEX_SHADER_SOURCE: EDGE_VERTEX,
        FRAGMENT_SHADER_SOURCE: EDGE_FRAGMENT,
        METHOD: TRIANGLES,
        UNIFORMS: ["u_matrix", "u_correctionRatio"],
        ATTRIBUTES: [
          { name: "a_position", size: 2, type: FLOAT },
          { name: "a_normal", size: 2, type: FLOAT },
          color("a_color"),
          { name: "a_side", size: 1, type: FLOAT },
        ],
      };
    }

    /** Sigma calls this when nodes have moved, come or gone; of edges it knows none. */
    reallocate() {
      this.stale = true;
    }

    render(params) {
      if (look.held) return;
      this.strata ??= new Strata(this.normalProgram.gl);
      if (this.stale) this.fill();
      if (this.hasNothingToRender()) return;
      const [width, height] = [params.width, params.height].map((side) => Math.floor(side * params.pixelRatio));
      this.strata.prepare(width, height, `${this.filled}/${params.matrix}`);
      this.strata.reach(Math.min(look.edges, this.capacity), this.capacity, (from, to) => {
        this.part = [from, to];
        super.render(params);
      });
      this.strata.show(look.edgeAlpha);
    }

    fill() {
      this.stale = false;
      this.filled = (this.filled ?? 0) + 1;
      const { model, visible } = pane;
      super.reallocate(model.m);
      this.array.fill(0);
      const nodes = Array.from({ length: model.n }, (_, i) => this.renderer.getNodeDisplayData(String(i)));
      const paint = pane.edgePaint();
      for (let e = 0; e < model.m; e++) {
        const [from, to] = [model.source[e], model.target[e]];
        if (visible[from] && visible[to]) this.put(24 * e, nodes[from], nodes[to], ...paint(e));
      }
    }

    put(start, source, target, size, shade) {
      const { array } = this;
      const dx = target.x - source.x;
      const dy = target.y - source.y;
      const length = Math.hypot(dx, dy);
      const scale = length > 0 ? size / length : 0;
      for (let corner = 0; corner < 4; corner++, start += 6) {
        const end = corner < 2 ? source : target;
        array[start] = end.x;
        array[start + 1] = end.y;
        array[start + 2] = -dy * scale;
        array[start + 3] = dx * scale;
        array[start + 4] = shade;
        array[start + 5] = corner % 2 ? 1 : -1;
      }
    }

    setUniforms(params, { gl, uniformLocations: at }) {
      gl.uniformMatrix3fv(at.u_matrix, false, params.matrix);
      gl.uniform1f(at.u_correctionRatio, params.correctionRatio);
    }

    drawWebGL(method, { gl }) {
      const [from, to] = this.part;
      this.strata.bind();
      this.bindCorners(gl);
      // An offset is in bytes.
      gl.drawElements(method, 6 * (to - from), gl.UNSIGNED_INT, 24 * from);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, null);
    }

    /** Which corners make the two triangles of each quad. */
    bindCorners(gl) {
      gl.getExtension("OES_element_index_uint"); // WebGL 1 must be asked; 2 has it
      this.corners ??= gl.createBuffer();
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.corners);
      if (this.quads === this.capacity) return;
      this.quads = this.capacity;
      const order = Uint32Array.from({ length: 6 * this.quads }, (_, k) => 4 * Math.floor(k / 6) + QUAD[k % 6]);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, order, gl.STATIC_DRAW);
    }
  };
}

const QUAD = [0, 1, 2, 2, 1, 3];
// A triangle around the disc.
const CORNERS = [0, 1, 2].map((k) => [Math.cos((2 * Math.PI * k) / 3), Math.sin((2 * Math.PI * k) / 3)]);

/** Discs with a thin rim in the background's colour; nodes whose best edge is below the threshold fade. */
export function nodeProgram(look) {
  return class StrengthNodeProgram extends uploading(NodeProgram, look) {
    getDefinition() {
      return {
        VERTICES: 3,
        VERTEX_SHADER_SOURCE: NODE_VERTEX,
        FRAGMENT_SHADER_SOURCE: NODE_FRAGMENT,
        METHOD: TRIANGLES,
        UNIFORMS: ["u_matrix", "u_sizeRatio", "u_correctionRatio", "u_threshold", "u_alpha", "u_rim", "u_background"],
        ATTRIBUTES: [
          { name: "a_position", size: 2, type: FLOAT },
          { name: "a_size", size: 1, type: FLOAT },
          color("a_color"),
          color("a_id"),
          { name: "a_best", size: 1, type: FLOAT },
          { name: "a_corner", size: 2, type: FLOAT },
        ],
      };
    }

    process(...item) {
      this.kept.clear();
      super.process(...item);
    }

    processVisibleItem(index, start, data) {
      const { array } = this;
      const shade = floatColor(data.color);
      for (const [x, y] of CORNERS) {
        array[start] = data.x;
        array[start + 1] = data.y;
        array[start + 2] = data.size;
        array[start + 3] = shade;
        array[start + 4] = index;
        array[start + 5] = data.best;
        array[start + 6] = x;
        array[start + 7] = y;
        start += 8;
      }
    }

    setUniforms(params, { gl, uniformLocations: at }) {
      gl.uniformMatrix3fv(at.u_matrix, false, params.matrix);
      gl.uniform1f(at.u_sizeRatio, params.sizeRatio);
      gl.uniform1f(at.u_correctionRatio, params.correctionRatio);
      gl.uniform1f(at.u_threshold, look.threshold);
      gl.uniform1f(at.u_alpha, look.nodeAlpha);
      if (at.u_rim) gl.uniform1f(at.u_rim, 2.0 / params.pixelRatio);
      if (at.u_background) gl.uniform3fv(at.u_background, look.background);
    }
  };
}
