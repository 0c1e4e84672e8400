// Entry of the Streamlit component for curves: one board of charts for each place on a page.
import { Board } from "./board.js";

const LIVE = new WeakMap();

export default function render({ data, parentElement }) {
  let board = LIVE.get(parentElement);
  if (!board) {
    board = new Board(parentElement);
    LIVE.set(parentElement, board);
  }
  board.update(data);
  return () => {
    LIVE.delete(parentElement);
    board.kill();
  };
}
