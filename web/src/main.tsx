import './app/appearance';
import './app/theme.css';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { RouterProvider } from 'react-router';
import { useShownTheme } from './app/appearance';
import { fetchScreens, router } from './app/router';
import { Toaster } from './ui/toast';
import { TooltipProvider } from './ui/tooltip';

/** What is shown first has the network to itself until then. */
const FETCH_SCREENS_AFTER_MS = 3_000;

function App() {
  const theme = useShownTheme();
  return (
    <TooltipProvider delayDuration={400} skipDelayDuration={200}>
      <RouterProvider router={router} />
      <Toaster theme={theme} />
    </TooltipProvider>
  );
}

const root = document.getElementById('root');
if (!root) throw new Error('The page has no #root.');
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
window.setTimeout(fetchScreens, FETCH_SCREENS_AFTER_MS);
