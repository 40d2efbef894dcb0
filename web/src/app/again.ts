/** Longer than a change of networks takes, in which browsers drop what is under way. */
const PAUSE_MS = 400;

/** Loads a part of the page; what could not be fetched is fetched once more after a moment. */
export async function again<T>(load: () => Promise<T>, pauseMs = PAUSE_MS): Promise<T> {
  try {
    return await load();
  } catch {
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    return await load();
  }
}
